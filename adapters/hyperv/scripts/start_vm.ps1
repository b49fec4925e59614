$vm = Get-VM -Id $Parameters.vm_id
$role = $null
if ($vm.IsClustered) {
    $role = Get-ClusterResource -VMId $vm.Id | Where-Object { "$($_.ResourceType)" -eq 'Virtual Machine' } | Select-Object -First 1
}
if ($null -ne $role -and "$($role.State)" -ne 'Online') {
    # Its cluster has to know that it shall run: it keeps it running then, also when its node dies.
    $null = Start-ClusterResource -InputObject $role
} else {
    Start-VM -VM $vm
}
@{}
