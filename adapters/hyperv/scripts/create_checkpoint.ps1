$vm = Get-VM -Id $Parameters.vm_id
function Find-Checkpoint {
    Get-VMSnapshot -VM $vm -SnapshotType Recovery | Where-Object { $_.Name -eq $Parameters.name } | Select-Object -First 1
}
$found = Find-Checkpoint
if ($null -eq $found) {
    $before = @(Get-VMSnapshot -VM $vm -SnapshotType Recovery | ForEach-Object { [string] $_.Id })
    $system = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_ComputerSystem -Filter "Name = '$($Parameters.vm_id)'"
    $service = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_VirtualSystemSnapshotService
    $class = Get-WmiObject -Namespace root\virtualization\v2 -List -Class Msvm_VirtualSystemSnapshotSettingData
    $settings = $class.CreateInstance()
    $settings.ConsistencyLevel = if ($Parameters.application_consistent) { 1 } else { 2 }
    $settings.IgnoreNonSnapshottableDisks = $true
    $arguments = $service.GetMethodParameters('CreateSnapshot')
    $arguments.AffectedSystem = $system.Path.Path
    $arguments.SnapshotSettings = $settings.GetText([System.Management.TextFormat]::WmiDtd20)
    # 32768: a recovery checkpoint, as backups use: without the memory, and not shown among the users'.
    $arguments.SnapshotType = 32768
    $answer = $service.InvokeMethod('CreateSnapshot', $arguments, $null)
    if ($answer.ReturnValue -eq 4096) {
        $job = New-Object -TypeName System.Management.ManagementObject -ArgumentList $answer.Job
        $job.Get()
        while ($job.JobState -eq 3 -or $job.JobState -eq 4) {
            Start-Sleep -Milliseconds 200
            $job.Get()
        }
        if ($job.JobState -ne 7) {
            $failure = New-Object -TypeName System.InvalidOperationException -ArgumentList "CreateSnapshot ended in state $($job.JobState), error $($job.ErrorCode): $($job.ErrorDescription)"
            $failure.Data['ErrorCode'] = [long] $job.ErrorCode
            throw $failure
        }
    } elseif ($answer.ReturnValue -ne 0) {
        $failure = New-Object -TypeName System.InvalidOperationException -ArgumentList "CreateSnapshot returned $($answer.ReturnValue)"
        $failure.Data['ErrorCode'] = [long] $answer.ReturnValue
        throw $failure
    }
    $made = Get-VMSnapshot -VM $vm -SnapshotType Recovery |
        Where-Object { $before -notcontains [string] $_.Id } | Select-Object -First 1
    Rename-VMSnapshot -VMSnapshot $made -NewName $Parameters.name
    $found = Find-Checkpoint
}
$drives = @(Get-VMHardDiskDrive -VMSnapshot $found | Where-Object { $null -eq $_.DiskNumber })
@{
    name  = $found.Name
    disks = @($drives | ForEach-Object {
        @{ controller = "$($_.ControllerType) $($_.ControllerNumber):$($_.ControllerLocation)"; path = $_.Path }
    })
}
