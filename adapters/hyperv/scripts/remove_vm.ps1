$vm = Get-VM -Id $Parameters.vm_id
# The files go first: while the machine is there, a second try still knows which they are.
foreach ($disk in @(Get-VMHardDiskDrive -VM $vm)) {
    if ($null -eq $disk.DiskNumber -and (Test-Path -LiteralPath $disk.Path)) {
        Remove-Item -LiteralPath $disk.Path -Force
    }
}
if ($vm.IsClustered) {
    Remove-ClusterGroup -VMId $vm.Id -RemoveResources -Force
}
Remove-VM -VM $vm -Force -Confirm:$false
@{}
