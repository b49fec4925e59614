$server = Get-SCVMMServer -ComputerName 'localhost'
$clouds = @(Get-SCCloud -VMMServer $server | ForEach-Object {
    $cloud = $_
    @{
        id                  = [string] $cloud.ID
        name                = $cloud.Name
        capability_profiles = @($cloud.CapabilityProfiles | Where-Object { $_ } | ForEach-Object {
            @{ name = $_.Name; fabric = [string] $_.FabricCapabilityType }
        })
        host_groups         = @($cloud.HostGroup | Where-Object { $_ } | ForEach-Object { $_.Path })
        logical_networks    = @(Get-SCLogicalNetwork -VMMServer $server -Cloud $cloud | ForEach-Object { $_.Name })
    }
})
$hosts = @(Get-SCVMHost -VMMServer $server | ForEach-Object {
    $vmHost = $_
    @{
        id                      = [string] $vmHost.ID
        name                    = $vmHost.Name
        computer_name           = $vmHost.ComputerName
        host_group              = [string] $vmHost.VMHostGroup.Path
        cluster                 = [string] $vmHost.HostCluster.Name
        platform                = [string] $vmHost.VirtualizationPlatform
        state                   = [string] $vmHost.OverallState
        responding              = "$($vmHost.CommunicationState)" -eq 'Responding'
        maintenance             = [bool] $vmHost.MaintenanceHost
        available_for_placement = [bool] $vmHost.AvailableForPlacement
        # VMM counts available memory in MB, everything else in bytes.
        available_memory        = [long] $vmHost.AvailableMemory * 1048576
        available_storage       = [long] $vmHost.AvailableStorageCapacity
        logical_networks        = @(Get-SCLogicalNetwork -VMMServer $server -VMHost $vmHost | ForEach-Object { $_.Name })
    }
})
@{
    server           = $server.Name
    version          = [string] $server.ProductVersion
    clouds           = $clouds
    host_groups      = @(Get-SCVMHostGroup -VMMServer $server | ForEach-Object {
        @{ id = [string] $_.ID; name = $_.Name; path = $_.Path }
    })
    hosts            = $hosts
    logical_networks = @(Get-SCLogicalNetwork -VMMServer $server | ForEach-Object {
        @{ id = [string] $_.ID; name = $_.Name }
    })
    vm_networks      = @(Get-SCVMNetwork -VMMServer $server | ForEach-Object {
        @{ id = [string] $_.ID; name = $_.Name; logical_network = [string] $_.LogicalNetwork.Name }
    })
}
