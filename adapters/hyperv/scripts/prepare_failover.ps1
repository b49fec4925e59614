$vm = Get-VM -Id $Parameters.vm_id
Start-VMFailover -VM $vm -Prepare -Confirm:$false
@{}
