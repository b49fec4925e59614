$vm = Get-VM -Id $Parameters.vm_id
$settings = @{
    VM                                      = $vm
    ReplicaServerName                       = $Parameters.replica_server
    ReplicaServerPort                       = $Parameters.replica_port
    AuthenticationType                      = $Parameters.authentication
    CompressionEnabled                      = $Parameters.compression
    ReplicationFrequencySec                 = $Parameters.frequency_s
    RecoveryHistory                         = $Parameters.recovery_history
    EnableWriteOrderPreservationAcrossDisks = $true
    # Leeward resynchronizes in the policy's window; the host must not begin by itself.
    AutoResynchronizeEnabled                = $false
    Confirm                                 = $false
}
if ($Parameters.certificate_thumbprint) {
    $settings.CertificateThumbprint = $Parameters.certificate_thumbprint
}
if ($Parameters.vss_frequency_h -gt 0) {
    $settings.VSSSnapshotFrequencyHour = $Parameters.vss_frequency_h
}
if (@($Parameters.excluded_disks).Count -gt 0) {
    $settings.ExcludedVhd = @(Get-VMHardDiskDrive -VM $vm | Where-Object { $Parameters.excluded_disks -contains $_.Path })
}
Enable-VMReplication @settings
@{}
