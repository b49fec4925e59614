$vm = Get-VM -Id $Parameters.vm_id
$settings = @{
    VM      = $vm
    Confirm = $false
}
if ($Parameters.use_backup) {
    $settings.UseBackup = $true
}
Start-VMInitialReplication @settings
@{}
