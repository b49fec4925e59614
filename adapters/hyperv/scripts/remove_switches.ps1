# The same turn as in connect_network: what is about to be connected is not unused.
$turn = [System.Threading.Mutex]::new($false, 'Global\leeward-switches')
try {
    $ours = $turn.WaitOne(60000)
} catch [System.Threading.AbandonedMutexException] {
    $ours = $true
}
if (-not $ours) { throw 'another process has been changing virtual switches for a minute' }
try {
    $used = @(Get-VMNetworkAdapter -All | ForEach-Object { $_.SwitchName })
    # Not by the cmdlet's own Name, which would read brackets and asterisks in a name as wildcards.
    $unused = @(Get-VMSwitch -SwitchType Private | Where-Object { $Parameters.names -contains $_.Name -and $used -notcontains $_.Name })
    foreach ($switch in $unused) {
        Remove-VMSwitch -VMSwitch $switch -Force -Confirm:$false
    }
} finally {
    $turn.ReleaseMutex()
}
@{}
