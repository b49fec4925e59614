$point = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_VirtualSystemReferencePoint |
    Where-Object { $_.InstanceID -eq $Parameters.reference_point_id } | Select-Object -First 1
if ($null -ne $point) {
    $service = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_VirtualSystemReferencePointService
    $arguments = $service.GetMethodParameters('DestroyReferencePoint')
    $arguments.AffectedReferencePoint = $point.Path.Path
    $answer = $service.InvokeMethod('DestroyReferencePoint', $arguments, $null)
    if ($answer.ReturnValue -ne 0 -and $answer.ReturnValue -ne 4096) {
        $failure = New-Object -TypeName System.InvalidOperationException -ArgumentList "DestroyReferencePoint returned $($answer.ReturnValue)"
        $failure.Data['ErrorCode'] = [long] $answer.ReturnValue
        throw $failure
    }
}
@{}
