$vm = Get-VM -Id $Parameters.vm_id
# Stop-VMFailover would take back a real failover just as readily: only with a copy there is it a test's end.
$copy = (Get-VMReplication -VM $vm).TestVirtualMachine
if ($null -ne $copy) {
    if ("$($copy.State)" -ne 'Off') {
        Stop-VM -VM $copy -TurnOff -Force -Confirm:$false
    }
    Stop-VMFailover -VM $vm -Confirm:$false
}
@{}
