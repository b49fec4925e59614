# The resource of the machine itself: that of its configuration stays online while the machine is off.
if ($null -ne $Parameters.vm_id) {
    $resources = @(Get-ClusterResource -VMId $Parameters.vm_id)
} else {
    $resources = @(Get-ClusterResource)
}
$roles = @($resources | Where-Object { "$($_.ResourceType)" -eq 'Virtual Machine' } | ForEach-Object {
    @{
        name        = [string] $_.Name
        group       = [string] $_.OwnerGroup.Name
        vm_id       = [string] (Get-ClusterParameter -InputObject $_ -Name VmId).Value
        state       = [string] $_.State
        group_state = [string] $_.OwnerGroup.State
        owner       = [string] $_.OwnerNode.Name
    }
})
# After the cluster: what the cluster did in between is seen.
$state = $null
if ($null -ne $Parameters.vm_id) {
    $state = [string] (Get-VM -Id $Parameters.vm_id).State
}
@{ node = $env:COMPUTERNAME; roles = $roles; vm_state = $state }
