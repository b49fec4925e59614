$vm = Get-VM -Id $Parameters.vm_id
$found = Get-VMSnapshot -VM $vm -SnapshotType Recovery | Where-Object { $_.Name -eq $Parameters.name } | Select-Object -First 1
if ($null -ne $found) {
    # Its files are merged in the background.
    Remove-VMSnapshot -VMSnapshot $found -Confirm:$false
}
@{}
