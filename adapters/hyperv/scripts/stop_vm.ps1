$vm = Get-VM -Id $Parameters.vm_id
if ($Parameters.turn_off) {
    Stop-VM -VM $vm -TurnOff -Force -Confirm:$false
} else {
    # Force: without it the host asks a person when the guest is locked or has unsaved work.
    Stop-VM -VM $vm -Force -Confirm:$false
}
@{}
