$vm = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_ComputerSystem -Filter "Name = '$($Parameters.vm_id)'"
$service = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_VirtualSystemReferencePointService
$before = @(Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_VirtualSystemReferencePoint | ForEach-Object { $_.InstanceID })
$class = Get-WmiObject -Namespace root\virtualization\v2 -List -Class Msvm_VirtualSystemReferencePointSettingData
$settings = $class.CreateInstance()
$settings.ConsistencyLevel = if ($Parameters.application_consistent) { 1 } else { 2 }
$arguments = $service.GetMethodParameters('CreateReferencePoint')
$arguments.AffectedSystem = $vm.Path.Path
$arguments.ReferencePointSettings = $settings.GetText([System.Management.TextFormat]::WmiDtd20)
# 2: based on resilient change tracking.
$arguments.ReferencePointType = 2
$answer = $service.InvokeMethod('CreateReferencePoint', $arguments, $null)
if ($answer.ReturnValue -eq 4096) {
    $job = New-Object -TypeName System.Management.ManagementObject -ArgumentList $answer.Job
    $job.Get()
    while ($job.JobState -eq 3 -or $job.JobState -eq 4) {
        Start-Sleep -Milliseconds 200
        $job.Get()
    }
    if ($job.JobState -ne 7) {
        $failure = New-Object -TypeName System.InvalidOperationException -ArgumentList "CreateReferencePoint ended in state $($job.JobState), error $($job.ErrorCode): $($job.ErrorDescription)"
        $failure.Data['ErrorCode'] = [long] $job.ErrorCode
        throw $failure
    }
} elseif ($answer.ReturnValue -ne 0) {
    $failure = New-Object -TypeName System.InvalidOperationException -ArgumentList "CreateReferencePoint returned $($answer.ReturnValue)"
    $failure.Data['ErrorCode'] = [long] $answer.ReturnValue
    throw $failure
}
$point = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_VirtualSystemReferencePoint |
    Where-Object { $_.VirtualSystemIdentifier -eq $Parameters.vm_id -and $before -notcontains $_.InstanceID } | Select-Object -First 1
$disks = @{}
for ($index = 0; $index -lt $point.VirtualDiskIdentifiers.Count; $index++) {
    $disks[$point.VirtualDiskIdentifiers[$index]] = $point.ResilientChangeTrackingIdentifiers[$index]
}
@{ id = $point.InstanceID; application_consistent = $point.ConsistencyLevel -eq 1; disks = $disks }
