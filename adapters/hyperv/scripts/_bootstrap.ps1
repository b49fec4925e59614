# All that stands on a command line. Nothing happens before the whole call has arrived on standard input.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$Call = ConvertFrom-Json -InputObject (@($input) -join '')
$Answer = & ([scriptblock]::Create($Call.envelope)) $Call
[Console]::Out.WriteLine($Answer)
