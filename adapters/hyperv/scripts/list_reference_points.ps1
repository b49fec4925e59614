$points = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_VirtualSystemReferencePoint |
    Where-Object { $_.VirtualSystemIdentifier -eq $Parameters.vm_id -and $_.ReferencePointType -eq 2 }
@{
    points = @($points | Where-Object { $_ } | ForEach-Object {
        $disks = @{}
        for ($index = 0; $index -lt $_.VirtualDiskIdentifiers.Count; $index++) {
            $disks[$_.VirtualDiskIdentifiers[$index]] = $_.ResilientChangeTrackingIdentifiers[$index]
        }
        @{ id = $_.InstanceID; application_consistent = $_.ConsistencyLevel -eq 1; disks = $disks }
    })
}
