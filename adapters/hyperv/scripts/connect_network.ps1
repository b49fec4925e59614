function Connect-Adapter {
    $vm = Get-VM -Id $Parameters.vm_id
    foreach ($adapter in @(Get-VMNetworkAdapter -VM $vm)) {
        Connect-VMNetworkAdapter -VMNetworkAdapter $adapter -SwitchName $Parameters.switch
    }
}
if ($Parameters.private) {
    # Names of switches need not be unique: two copies that come at once must not make two. And none that is about to be
    # connected may be removed as unused: remove_switches takes the same turn.
    $turn = [System.Threading.Mutex]::new($false, 'Global\leeward-switches')
    try {
        $ours = $turn.WaitOne(60000)
    } catch [System.Threading.AbandonedMutexException] {
        $ours = $true
    }
    if (-not $ours) { throw 'another process has been changing virtual switches for a minute' }
    try {
        if (@(Get-VMSwitch | Where-Object { $_.Name -eq $Parameters.switch }).Count -eq 0) {
            $null = New-VMSwitch -Name $Parameters.switch -SwitchType Private -Notes 'made by leeward for test copies'
        }
        Connect-Adapter
    } finally {
        $turn.ReleaseMutex()
    }
} else {
    Connect-Adapter
}
@{}
