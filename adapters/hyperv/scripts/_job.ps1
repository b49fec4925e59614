# The bootstrap of a job: its call and its answer are files in the directory it is started in.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$folder = (Get-Location).ProviderPath
$process = Get-Process -Id $PID
$record = @{ id = $PID; started = $process.StartTime.ToUniversalTime().ToString('o') }
$partial = Join-Path -Path $folder -ChildPath 'process.partial'
[System.IO.File]::WriteAllText($partial, (ConvertTo-Json -InputObject $record -Compress))
Move-Item -LiteralPath $partial -Destination (Join-Path -Path $folder -ChildPath 'process.json')

$path = Join-Path -Path $folder -ChildPath 'call.json'
$Call = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText($path))
# The parameters may hold a secret: they leave the disk before the work begins.
Remove-Item -LiteralPath $path
$Answer = & ([scriptblock]::Create($Call.envelope)) $Call
$partial = Join-Path -Path $folder -ChildPath 'answer.partial'
[System.IO.File]::WriteAllText($partial, $Answer)
Move-Item -LiteralPath $partial -Destination (Join-Path -Path $folder -ChildPath 'answer.json')
