if ($null -ne $Parameters.point_id) {
    $point = Get-VMSnapshot -Id $Parameters.point_id
    Start-VMFailover -VMRecoverySnapshot $point -Confirm:$false
} else {
    $vm = Get-VM -Id $Parameters.vm_id
    Start-VMFailover -VM $vm -Confirm:$false
}
@{}
