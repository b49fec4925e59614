$server = Get-SCVMMServer -ComputerName 'localhost'
# Machines in the library are stored, not on a host.
$machines = @(Get-SCVirtualMachine -VMMServer $server | Where-Object { $null -ne $_.VMHost })
if ($null -ne $Parameters.names) {
    # Not by the cmdlet's own Name, which would read brackets and asterisks in a name as wildcards.
    $machines = @($machines | Where-Object { $Parameters.names -contains $_.Name })
}
function ConvertFrom-Drive($Drive) {
    $file = $Drive.VirtualHardDisk
    $found = @{
        path         = [string] $file.Location
        controller   = "$($Drive.BusType) $($Drive.Bus):$($Drive.LUN)"
        pass_through = $null -eq $file
    }
    if ($null -ne $file) {
        $found.size = [long] $file.MaximumSize
        $found.file_size = [long] $file.Size
        $found.kind = [string] $file.VHDType
        $found.format = [string] $file.VHDFormatType
    }
    $found
}
@{
    machines = @($machines | ForEach-Object {
        @{
            id               = [string] $_.ID
            vm_id            = [string] $_.VMId
            name             = $_.Name
            host             = $_.VMHost.Name
            cloud            = [string] $_.Cloud.Name
            status           = [string] $_.Status
            generation       = [int] $_.Generation
            is_primary       = [bool] $_.IsPrimaryVM
            is_replica       = [bool] $_.IsRecoveryVM
            highly_available = [bool] $_.IsHighlyAvailable
            heartbeat        = [bool] $_.HeartbeatEnabled
            shutdown         = [bool] $_.OperatingSystemShutdownEnabled
            backup           = [bool] $_.BackupEnabled
            disks            = @($_.VirtualDiskDrives | Where-Object { $_ } | ForEach-Object { ConvertFrom-Drive $_ })
            adapters         = @($_.VirtualNetworkAdapters | Where-Object { $_ } | ForEach-Object {
                @{
                    id              = [string] $_.ID
                    name            = $_.Name
                    vm_network      = [string] $_.VMNetwork.Name
                    logical_network = [string] $_.LogicalNetwork.Name
                    switch          = [string] $_.VirtualNetwork
                    addresses       = @(@($_.IPv4Addresses) + @($_.IPv6Addresses) | Where-Object { $_ })
                }
            })
        }
    })
}
