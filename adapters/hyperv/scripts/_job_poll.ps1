# Says how a job is. Gives: state (absent, starting, running, finished, lost), age_s since it last changed, answer.
$root = Join-Path -Path $env:ProgramData -ChildPath 'leeward\jobs'
$folder = Join-Path -Path $root -ChildPath $Parameters.id
$answer = Join-Path -Path $folder -ChildPath 'answer.json'
$record = Join-Path -Path $folder -ChildPath 'process.json'
$state = 'absent'
$age = 0.0
$text = $null

if (Test-Path -LiteralPath $folder) {
    # The process is looked at before the answer: one that ends in between leaves its answer, and is not lost.
    $alive = $false
    $known = Test-Path -LiteralPath $record
    if ($known) {
        $noted = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText($record))
        $process = Get-Process -Id $noted.id -ErrorAction SilentlyContinue
        # Process ids are used again; the moment of the start tells two processes apart.
        if ($process -and $noted.started -is [string]) {
            $alive = $process.StartTime.ToUniversalTime().ToString('o') -eq $noted.started
        }
    }
    $changed = (Get-Item -LiteralPath $folder).LastWriteTimeUtc
    $age = ([System.DateTime]::UtcNow - $changed).TotalSeconds
    if (Test-Path -LiteralPath $answer) {
        $state = 'finished'
        $text = [System.IO.File]::ReadAllText($answer)
    }
    elseif ($alive) { $state = 'running' }
    elseif (-not $known -and $age -lt 60) { $state = 'starting' }
    else { $state = 'lost' }
}
@{ state = $state; age_s = $age; answer = $text }
