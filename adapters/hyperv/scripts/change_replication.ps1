$vm = Get-VM -Id $Parameters.vm_id
$settings = @{
    VM                      = $vm
    ReplicationFrequencySec = $Parameters.frequency_s
    RecoveryHistory         = $Parameters.recovery_history
    Confirm                 = $false
}
if ($Parameters.vss_frequency_h -gt 0) {
    $settings.VSSSnapshotFrequencyHour = $Parameters.vss_frequency_h
} else {
    $settings.DisableVSSSnapshotReplication = $true
}
Set-VMReplication @settings
@{}
