$machines = @(Get-VM)
if ($null -ne $Parameters.names) {
    # Not by the cmdlet's own Name, which would read brackets and asterisks in a name as wildcards.
    $machines = @($machines | Where-Object { $Parameters.names -contains $_.Name })
}
$disks = @{}; $checkpoints = @{}; $services = @{}; $adapters = @{}; $replications = @{}
function Add-To($Table, $Item) {
    $key = [string] $Item.VMId
    if (-not $Table.ContainsKey($key)) { $Table[$key] = @() }
    $Table[$key] += $Item
}
if ($machines.Count -gt 0) {
    foreach ($item in @(Get-VMHardDiskDrive -VM $machines)) { Add-To $disks $item }
    foreach ($item in @(Get-VMSnapshot -VM $machines)) { Add-To $checkpoints $item }
    foreach ($item in @(Get-VMIntegrationService -VM $machines)) { Add-To $services $item }
    foreach ($item in @(Get-VMNetworkAdapter -VM $machines)) { Add-To $adapters $item }
    foreach ($item in @(Get-VMReplication)) { Add-To $replications $item }
}
function ConvertTo-Utc($Moment) {
    if ($null -ne $Moment) { $Moment.ToUniversalTime().ToString('o') }
}
function ConvertFrom-Drive($Drive) {
    $found = @{
        path         = $Drive.Path
        controller   = "$($Drive.ControllerType) $($Drive.ControllerNumber):$($Drive.ControllerLocation)"
        pass_through = $null -ne $Drive.DiskNumber
        shared       = [bool] $Drive.SupportPersistentReservations
    }
    if (-not $found.pass_through -and $Drive.Path) {
        try {
            $file = Get-VHD -Path $Drive.Path
            $found.size = [long] $file.Size
            $found.file_size = [long] $file.FileSize
            $found.kind = [string] $file.VhdType
            $found.format = [string] $file.VhdFormat
            $found.parent_path = [string] $file.ParentPath
            while ($file.ParentPath) { $file = Get-VHD -Path $file.ParentPath }
            if ($found.parent_path) { $found.base_path = [string] $file.Path }
        } catch {
            $found.problem = $_.Exception.Message
        }
    }
    $found
}
function ConvertFrom-Replication($Items) {
    # A replica that is replicated further has a second relationship, and no end of it may hide the machine's own.
    $extended = $Items | Where-Object { "$($_.ReplicationRelationshipType)" -eq 'Extended' } | Select-Object -First 1
    $item = $Items | Where-Object { "$($_.ReplicationRelationshipType)" -eq 'Simple' } | Select-Object -First 1
    if ($null -eq $item) { $item = $extended }
    if ($null -eq $item) { return $null }
    @{
        state             = [string] $item.ReplicationState
        health            = [string] $item.ReplicationHealth
        mode              = [string] $item.ReplicationMode
        primary_server    = [string] $item.PrimaryServerName
        replica_server    = [string] $item.ReplicaServerName
        replica_port      = [int] $item.ReplicaServerPort
        authentication    = [string] $item.AuthenticationType
        frequency_s       = [int] $item.ReplicationFrequencySec
        recovery_history  = [int] $item.RecoveryHistory
        vss_frequency_h   = [int] $item.VSSSnapshotFrequencyHour
        last_replication  = ConvertTo-Utc $item.LastReplicationTime
        replicated_disks  = @($item.ReplicatedDisks | ForEach-Object { $_.Path })
        test_vm_id        = if ($null -ne $item.TestVirtualMachine) { [string] $item.TestVirtualMachine.Id } else { '' }
        extended_to       = if ("$($item.ReplicationMode)" -eq 'Replica') { [string] $extended.ReplicaServerName } else { '' }
    }
}
$system = Get-CimInstance -ClassName Win32_OperatingSystem
# Where the feature is installed and the host is in no cluster, the service is disabled.
$service = Get-Service -Name ClusSvc -ErrorAction SilentlyContinue
@{
    cluster_service = if ($null -ne $service -and "$($service.StartType)" -ne 'Disabled') { [string] $service.Status } else { '' }
    uptime_s = ([System.DateTime]::UtcNow - $system.LastBootUpTime.ToUniversalTime()).TotalSeconds
    machines = @($machines | ForEach-Object {
        $key = [string] $_.Id
        @{
            id                   = $key
            name                 = $_.Name
            state                = [string] $_.State
            status               = [string] $_.Status
            generation           = [int] $_.Generation
            version              = [string] $_.Version
            notes                = [string] $_.Notes
            clustered            = [bool] $_.IsClustered
            automatic_start      = [string] $_.AutomaticStartAction
            automatic_start_delay_s = [int] $_.AutomaticStartDelay
            disks                = @($disks[$key] | Where-Object { $_ } | ForEach-Object { ConvertFrom-Drive $_ })
            checkpoints          = @($checkpoints[$key] | Where-Object { $_ } | ForEach-Object {
                @{ id = [string] $_.Id; name = $_.Name; kind = [string] $_.SnapshotType; time = ConvertTo-Utc $_.CreationTime }
            })
            integration_services = @($services[$key] | Where-Object { $_ } | ForEach-Object {
                @{ name = $_.Name; component = ($_.Id -split '\\')[-1]; enabled = [bool] $_.Enabled; ok = "$($_.PrimaryOperationalStatus)" -eq 'Ok' }
            })
            network_adapters     = @($adapters[$key] | Where-Object { $_ } | ForEach-Object {
                @{ id = [string] $_.Id; name = $_.Name; switch = [string] $_.SwitchName; addresses = @($_.IPAddresses) }
            })
            replication          = ConvertFrom-Replication $replications[$key]
        }
    })
}
