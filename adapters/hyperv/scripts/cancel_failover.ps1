$vm = Get-VM -Id $Parameters.vm_id
Stop-VMFailover -VM $vm -Confirm:$false
@{}
