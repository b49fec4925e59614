$vm = Get-VM -Id $Parameters.vm_id
if ($null -ne $Parameters.point_id) {
    $point = Get-VMSnapshot -Id $Parameters.point_id
    Start-VMFailover -VMRecoverySnapshot $point -AsTest -Confirm:$false
} else {
    Start-VMFailover -VM $vm -AsTest -Confirm:$false
}
$copy = (Get-VMReplication -VM $vm).TestVirtualMachine
@{ vm_id = [string] $copy.Id; name = $copy.Name }
