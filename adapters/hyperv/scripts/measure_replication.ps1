$machines = @(Get-VM | Where-Object { "$($_.ReplicationMode)" -ne 'None' })
if ($null -ne $Parameters.vm_ids) {
    $machines = @($machines | Where-Object { $Parameters.vm_ids -contains [string] $_.Id })
}
$states = @{}
foreach ($vm in $machines) { $states[[string] $vm.Id] = [string] $vm.State }
function ConvertTo-Utc($Moment) {
    if ($null -ne $Moment) { $Moment.ToUniversalTime().ToString('o') }
}
$measured = @()
if ($machines.Count -gt 0) {
    $measured = @(Measure-VMReplication -VM $machines -ReplicationRelationshipType Simple)
}
@{
    time     = [System.DateTime]::UtcNow.ToString('o')
    machines = @($measured | ForEach-Object {
        $latency = $_.AverageReplicationLatency
        $task = @($_.CurrentTask) | Where-Object { $_ } | Select-Object -First 1
        # Kinds of replication by number, as Msvm_ReplicationRelationship documents them: 2 application consistent, 3 planned.
        @{
            vm_id                           = [string] $_.VMId
            name                            = $_.VMName
            vm_state                        = $states[[string] $_.VMId]
            state                           = [string] $_.ReplicationState
            health                          = [string] $_.ReplicationHealth
            mode                            = [string] $_.ReplicationMode
            health_details                  = @($_.ReplicationHealthDetails | Where-Object { $_ })
            last_replication                = ConvertTo-Utc $_.LastReplicationTime
            last_was_application_consistent = [int] $_.LastReplicationType -eq 2
            last_was_planned                = [int] $_.LastReplicationType -eq 3
            failed_over_planned             = [int] $_.FailedOverReplicationType -eq 3
            pending_bytes                   = [long] $_.PendingReplicationSize
            average_bytes                   = [long] $_.AverageReplicationSize
            average_latency_s               = if ($null -ne $latency) { $latency.TotalSeconds } else { 0 }
            errors                          = [int] $_.ReplicationErrors
            missed                          = [int] $_.MissedReplicationCount
            percent                         = if ($null -ne $task) { [int] $task.PercentComplete } else { $null }
        }
    })
}
