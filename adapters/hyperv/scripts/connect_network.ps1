$vm = Get-VM -Id $Parameters.vm_id
foreach ($adapter in @(Get-VMNetworkAdapter -VM $vm)) {
    Connect-VMNetworkAdapter -VMNetworkAdapter $adapter -SwitchName $Parameters.switch
}
@{}
