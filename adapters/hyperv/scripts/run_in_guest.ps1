# PowerShell Direct: through the host's memory, so the guest needs no network.
$password = ConvertTo-SecureString -String $Parameters.password -AsPlainText -Force
$credential = New-Object -TypeName System.Management.Automation.PSCredential -ArgumentList $Parameters.user, $password
$given = ConvertTo-Json -Compress -InputObject @{ command = @($Parameters.command); environment = $Parameters.environment }
$work = {
    param([string] $Json)
    $ErrorActionPreference = 'Continue'
    $given = ConvertFrom-Json -InputObject $Json
    foreach ($variable in $given.environment.PSObject.Properties) {
        [System.Environment]::SetEnvironmentVariable($variable.Name, $variable.Value)
    }
    $program, $rest = @($given.command)
    $global:LASTEXITCODE = 0
    $output = & $program $rest 2>&1 | Out-String
    @{ exit_code = $global:LASTEXITCODE; output = $output }
}
$answer = Invoke-Command -VMId $Parameters.vm_id -Credential $credential -ScriptBlock $work -ArgumentList $given
@{ exit_code = [int] $answer.exit_code; output = [string] $answer.output }
