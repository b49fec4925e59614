$vm = Get-VM -Id $Parameters.vm_id
$settings = @{
    VM                                      = $vm
    Reverse                                 = $true
    ReplicaServerName                       = $Parameters.replica_server
    ReplicaServerPort                       = $Parameters.replica_port
    AuthenticationType                      = $Parameters.authentication
    CompressionEnabled                      = $Parameters.compression
    ReplicationFrequencySec                 = $Parameters.frequency_s
    RecoveryHistory                         = $Parameters.recovery_history
    EnableWriteOrderPreservationAcrossDisks = $true
    AutoResynchronizeEnabled                = $false
    Confirm                                 = $false
}
if ($Parameters.certificate_thumbprint) {
    $settings.CertificateThumbprint = $Parameters.certificate_thumbprint
}
if ($Parameters.vss_frequency_h -gt 0) {
    $settings.VSSSnapshotFrequencyHour = $Parameters.vss_frequency_h
} else {
    $settings.DisableVSSSnapshotReplication = $true
}
Set-VMReplication @settings
@{}
