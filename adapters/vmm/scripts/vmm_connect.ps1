$server = Get-SCVMMServer -ComputerName 'localhost'
$vmHost = Get-SCVMHost -VMMServer $server -ComputerName $Parameters.host
# The host made or changed the machine behind VMM's back.
$null = Read-SCVirtualMachine -VMHost $vmHost
$vm = Get-SCVirtualMachine -VMMServer $server -VMHost $vmHost | Where-Object { "$($_.VMId)" -eq $Parameters.vm_id } | Select-Object -First 1
if ($null -ne $vm) {
    $network = Get-SCVMNetwork -VMMServer $server -ID $Parameters.vm_network_id
    $subnets = @(Get-SCVMSubnet -VMMServer $server -VMNetwork $network)
    foreach ($adapter in @(Get-SCVirtualNetworkAdapter -VMMServer $server -VM $vm)) {
        $settings = @{
            VirtualNetworkAdapter = $adapter
            VMNetwork             = $network
        }
        # With several subnets VMM chooses by the host that the machine is on.
        if ($subnets.Count -eq 1) {
            $settings.VMSubnet = $subnets[0]
        }
        if ($Parameters.switch) {
            $settings.VirtualNetwork = $Parameters.switch
        }
        $null = Set-SCVirtualNetworkAdapter @settings
    }
    if ($Parameters.cloud_id) {
        $cloud = Get-SCCloud -VMMServer $server -ID $Parameters.cloud_id
        $null = Set-SCVirtualMachine -VM $vm -Cloud $cloud
    }
    $null = Read-SCVirtualMachine -VM $vm
}
@{ found = $null -ne $vm }
