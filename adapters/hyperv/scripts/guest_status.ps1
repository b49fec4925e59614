$vm = Get-VM -Id $Parameters.vm_id
$addresses = @(Get-VMNetworkAdapter -VM $vm | ForEach-Object { $_.IPAddresses })
$published = @{}
$exchange = Get-CimInstance -Namespace root\virtualization\v2 -ClassName Msvm_KvpExchangeComponent -Filter "SystemName = '$($vm.Id)'"
foreach ($item in @($exchange.GuestExchangeItems)) {
    if ($item) {
        $properties = @{}
        foreach ($property in ([xml] $item).INSTANCE.PROPERTY) {
            $properties[$property.NAME] = $property.VALUE
        }
        $published[$properties['Name']] = [string] $properties['Data']
    }
}
@{
    vm_state   = [string] $vm.State
    uptime_s   = $vm.Uptime.TotalSeconds
    heartbeat  = [string] $vm.Heartbeat
    addresses  = $addresses
    published  = $published
}
