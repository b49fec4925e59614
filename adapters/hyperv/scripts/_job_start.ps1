# Starts a job that outlives this connection, unless one with the same id is there. Gives: started.
$account = [System.Security.Principal.WindowsIdentity]::GetCurrent().User
$root = Join-Path -Path $env:ProgramData -ChildPath ('leeward\jobs\' + $account.Value)
$folder = Join-Path -Path $root -ChildPath $Parameters.id
$staging = Join-Path -Path $root -ChildPath ('.' + [System.Guid]::NewGuid().ToString('N'))

# The call may hold a secret: only SYSTEM, administrators and this account may read what is below.
$security = New-Object -TypeName System.Security.AccessControl.DirectorySecurity
$security.SetAccessRuleProtection($true, $false)
$owners = @(
    $account
    [System.Security.Principal.SecurityIdentifier] 'S-1-5-18'
    [System.Security.Principal.SecurityIdentifier] 'S-1-5-32-544'
)
foreach ($owner in $owners) {
    $rule = New-Object -TypeName System.Security.AccessControl.FileSystemAccessRule -ArgumentList @(
        $owner, 'FullControl', 'ContainerInherit,ObjectInherit', 'None', 'Allow'
    )
    $security.AddAccessRule($rule)
}
$null = [System.IO.Directory]::CreateDirectory($root, $security)
if ($owners -notcontains (Get-Acl -LiteralPath $root).GetOwner([System.Security.Principal.SecurityIdentifier])) {
    throw "$root belongs to another account."
}
$today = [System.DateTime]::UtcNow
foreach ($left in @(Get-ChildItem -LiteralPath $root)) {
    # Left by somebody who never came back: half-made ones begin with a dot and may hold a call.
    $kept = if ($left.Name.StartsWith('.')) { 1 } else { 30 }
    if ($left.LastWriteTimeUtc -lt $today.AddDays(-$kept)) {
        Remove-Item -LiteralPath $left.FullName -Recurse -Force -ErrorAction SilentlyContinue
    }
}
$null = [System.IO.Directory]::CreateDirectory($staging, $security)
[System.IO.File]::WriteAllText((Join-Path -Path $staging -ChildPath 'call.json'), $Parameters.call)

# Renaming onto an existing folder fails: of two that start the same job at once, one does.
$claimed = $true
try { [System.IO.Directory]::Move($staging, $folder) }
catch {
    Remove-Item -LiteralPath $staging -Recurse -Force
    if (-not (Test-Path -LiteralPath $folder)) { throw }
    $claimed = $false
}

if ($claimed) {
    # A process of WMI's, not of this remote shell, which ends its own processes when it is closed.
    $created = Invoke-CimMethod -ClassName Win32_Process -MethodName Create -Arguments @{
        CommandLine = $Parameters.command
        CurrentDirectory = $folder
    }
    if ($created.ReturnValue -ne 0) {
        Remove-Item -LiteralPath $folder -Recurse -Force
        throw "Win32_Process.Create returned $($created.ReturnValue)."
    }
}
@{ started = $claimed }
