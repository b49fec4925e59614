$vm = Get-VM -Id $Parameters.vm_id
if ($Parameters.resynchronize) {
    Resume-VMReplication -VM $vm -Resynchronize -Confirm:$false
} else {
    Resume-VMReplication -VM $vm -Confirm:$false
}
@{}
