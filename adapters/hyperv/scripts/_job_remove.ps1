# Removes what a job that ended left behind. Not there: nothing happens. Gives: removed.
$account = [System.Security.Principal.WindowsIdentity]::GetCurrent().User
$root = Join-Path -Path $env:ProgramData -ChildPath ('leeward\jobs\' + $account.Value)
$folder = Join-Path -Path $root -ChildPath $Parameters.id
$there = Test-Path -LiteralPath $folder
if ($there) { Remove-Item -LiteralPath $folder -Recurse -Force }
@{ removed = $there }
