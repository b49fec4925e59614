# Runs the script of a call and returns its answer as one line of ASCII: docs/formats.md.
param($Call)

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$ConfirmPreference = 'None'
# With the type data of Windows PowerShell 5.1, ConvertTo-Json writes some arrays as {"value": [], "Count": 0}.
Remove-TypeData -TypeName System.Array -ErrorAction SilentlyContinue

function Get-Checksum {
    param([string] $Text)
    $algorithm = [System.Security.Cryptography.SHA256]::Create()
    $hash = $algorithm.ComputeHash([System.Text.Encoding]::ASCII.GetBytes($Text))
    return [System.BitConverter]::ToString($hash).Replace('-', '').ToLowerInvariant()
}

function Get-ErrorCode {
    # Scripts that call a WMI method put its return value into the exception's Data.
    param([System.Exception] $Cause)
    if ($Cause.Data.Contains('ErrorCode')) { return [long] $Cause.Data['ErrorCode'] }
    if ($Cause -is [System.ComponentModel.Win32Exception]) { return [long] $Cause.NativeErrorCode }
    if ($Cause.GetType().Name -eq 'CimException') { return [long] $Cause.StatusCode }
    return $null
}

function Get-Record {
    param([System.Management.Automation.ErrorRecord] $Failure)
    $exception = $Failure.Exception
    if ($exception -is [System.Management.Automation.MethodInvocationException] -and $exception.InnerException) {
        $exception = $exception.InnerException
    }
    $cause = $exception.GetBaseException()
    return @{
        message = [string] $exception.Message
        fullyQualifiedErrorId = [string] $Failure.FullyQualifiedErrorId
        category = [string] $Failure.CategoryInfo.Category
        hresult = [long] $cause.HResult
        errorCode = Get-ErrorCode $cause
        exceptionType = [string] $exception.GetType().FullName
        target = [string] $Failure.CategoryInfo.TargetName
        script = [string] $Call.script
        line = [int] $Failure.InvocationInfo.ScriptLineNumber
    }
}

try {
    if ($Call.format -ne 'leeward-call' -or $Call.version -ne 1) {
        throw 'This is not a call of version 1.'
    }
    if ((Get-Checksum ($Call.script + "`n" + $Call.text + "`n" + $Call.parameters)) -ne $Call.sha256) {
        throw 'The call does not match its checksum.'
    }
    $text = [System.Text.Encoding]::UTF8.GetString([System.Convert]::FromBase64String($Call.text))
    $json = [System.Text.Encoding]::UTF8.GetString([System.Convert]::FromBase64String($Call.parameters))
    $Parameters = ConvertFrom-Json -InputObject $json
    $written = @(& ([scriptblock]::Create($text)) 3>&1 6>$null)
    $results = @($written | Where-Object { $_ -isnot [System.Management.Automation.WarningRecord] })
    $warnings = @($written | Where-Object { $_ -is [System.Management.Automation.WarningRecord] })
    if ($results.Count -gt 1) {
        throw "The script wrote $($results.Count) results instead of one."
    }
    $result = @{}
    if ($results.Count -eq 1) { $result = $results[0] }
    $content = @{ result = $result; warnings = @($warnings | ForEach-Object { [string] $_.Message }) }
}
catch {
    $content = @{ error = Get-Record $_ }
}
$payload = ConvertTo-Json -InputObject $content -Depth 32 -Compress
$encoded = [System.Convert]::ToBase64String([System.Text.Encoding]::UTF8.GetBytes($payload))
$answer = [ordered] @{
    format = 'leeward-answer'
    version = 1
    sha256 = Get-Checksum $encoded
    payload = $encoded
}
ConvertTo-Json -InputObject $answer -Compress
