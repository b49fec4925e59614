$vm = Get-VM -Id $Parameters.vm_id
if ("$($vm.State)" -notlike 'Off*') {
    if ($Parameters.turn_off) {
        Stop-VM -VM $vm -TurnOff -Force -Confirm:$false
    } else {
        # Force: without it the host asks a person when the guest is locked or has unsaved work.
        Stop-VM -VM $vm -Force -Confirm:$false
    }
}
if ($vm.IsClustered) {
    # Until its role is offline, the cluster may bring it online again, here or on another node.
    $resources = @(Get-ClusterResource)
    $role = Get-ClusterResource -VMId $vm.Id | Where-Object { "$($_.ResourceType)" -eq 'Virtual Machine' } | Select-Object -First 1
    $ours = @($env:COMPUTERNAME, [System.Net.Dns]::GetHostName()) -contains "$($role.OwnerNode.Name)"
    # Not the whole group: a machine whose configuration is offline is on no host, and cannot be prepared for a failover.
    $configuration = $resources | Where-Object { "$($_.ResourceType)" -eq 'Virtual Machine Configuration' -and "$($_.OwnerGroup)" -eq "$($role.OwnerGroup)" } | Select-Object -First 1
    if ($ours -and $null -ne $configuration -and "$($configuration.State)" -eq 'Offline') {
        $null = Start-ClusterResource -InputObject $configuration
    }
    # What was started again meanwhile is not taken offline here, which would save it: its guest is asked once more.
    $isOff = "$((Get-VM -Id $Parameters.vm_id).State)" -like 'Off*'
    if ($ours -and "$($role.State)" -ne 'Offline' -and ($isOff -or $Parameters.turn_off)) {
        $null = Stop-ClusterResource -InputObject $role
    }
    if ($Parameters.turn_off) {
        $vm = Get-VM -Id $Parameters.vm_id
        if ("$($vm.State)" -eq 'Saved') {
            Remove-VMSavedState -VM $vm -Confirm:$false
        } elseif ("$($vm.State)" -notlike 'Off*') {
            Stop-VM -VM $vm -TurnOff -Force -Confirm:$false
        }
    }
}
@{}
