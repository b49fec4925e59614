$service = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_ImageManagementService
$arguments = $service.GetMethodParameters('GetVirtualDiskChanges')
$arguments.Path = $Parameters.path
$arguments.LimitId = $Parameters.tracking_id
$arguments.ByteOffset = $Parameters.offset
$arguments.ByteLength = $Parameters.length
$answer = $service.InvokeMethod('GetVirtualDiskChanges', $arguments, $null)
if ($answer.ReturnValue -ne 0) {
    $failure = New-Object -TypeName System.InvalidOperationException -ArgumentList "GetVirtualDiskChanges returned $($answer.ReturnValue)"
    $failure.Data['ErrorCode'] = [long] $answer.ReturnValue
    throw $failure
}
$ranges = @()
for ($index = 0; $index -lt $answer.ChangedByteOffsets.Count; $index++) {
    $ranges += @{ offset = [long] $answer.ChangedByteOffsets[$index]; length = [long] $answer.ChangedByteLengths[$index] }
}
@{ processed_until = [long] $Parameters.offset + [long] $answer.ProcessedByteLength; ranges = $ranges }
