$vm = Get-VM -Id $Parameters.vm_id
Complete-VMFailover -VM $vm -Confirm:$false
@{}
