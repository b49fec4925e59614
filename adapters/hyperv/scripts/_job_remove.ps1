# Removes what a job that ended left behind. Not there: nothing happens. Gives: removed.
$root = Join-Path -Path $env:ProgramData -ChildPath 'leeward\jobs'
$folder = Join-Path -Path $root -ChildPath $Parameters.id
$there = Test-Path -LiteralPath $folder
if ($there) { Remove-Item -LiteralPath $folder -Recurse -Force }
@{ removed = $there }
