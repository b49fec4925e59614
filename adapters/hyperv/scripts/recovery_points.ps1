$vm = Get-VM -Id $Parameters.vm_id
$replication = Get-VMReplication -VM $vm
$kinds = 'Recovery', 'Replica', 'AppConsistentReplica', 'SyncedReplica'
$points = @(Get-VMSnapshot -VM $vm | Where-Object { $kinds -contains "$($_.SnapshotType)" } | Sort-Object -Property CreationTime | ForEach-Object {
    @{
        id                     = [string] $_.Id
        name                   = $_.Name
        time                   = $_.CreationTime.ToUniversalTime().ToString('o')
        application_consistent = "$($_.SnapshotType)" -eq 'AppConsistentReplica'
    }
})
$latest = $replication.LastReplicationTime
@{
    latest = if ($null -ne $latest) { $latest.ToUniversalTime().ToString('o') } else { $null }
    points = $points
}
