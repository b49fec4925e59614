# Says how a job is. Gives: state (absent, starting, running, finished, lost), age_s since it last changed, answer.
$account = [System.Security.Principal.WindowsIdentity]::GetCurrent().User
$root = Join-Path -Path $env:ProgramData -ChildPath ('leeward\jobs\' + $account.Value)
$folder = Join-Path -Path $root -ChildPath $Parameters.id
$answer = Join-Path -Path $folder -ChildPath 'answer.json'
$record = Join-Path -Path $folder -ChildPath 'process.json'
$state = 'absent'
$age = 0.0
$text = $null

if (Test-Path -LiteralPath $folder) {
    # Everybody may make folders in ProgramData: an answer counts when this account, SYSTEM or administrators own it.
    $owner = (Get-Acl -LiteralPath $folder).GetOwner([System.Security.Principal.SecurityIdentifier])
    if (@($account.Value, 'S-1-5-18', 'S-1-5-32-544') -notcontains $owner.Value) {
        throw "$folder belongs to another account."
    }
    # The process is looked at before the answer: one that ends in between leaves its answer, and is not lost.
    $alive = $false
    $known = Test-Path -LiteralPath $record
    if ($known) {
        $noted = ConvertFrom-Json -InputObject ([System.IO.File]::ReadAllText($record))
        $process = Get-Process -Id $noted.id -ErrorAction SilentlyContinue
        # Process ids are used again; the moment of the start tells two processes apart.
        if ($process) {
            try { $alive = $process.StartTime.ToUniversalTime().ToString('o') -eq $noted.started }
            catch [System.Management.Automation.GetValueInvocationException] {
                # Windows does not tell when another account's process began: it is not the job's.
                $alive = $false
            }
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
