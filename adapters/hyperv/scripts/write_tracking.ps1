$vm = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_ComputerSystem -Filter "Name = '$($Parameters.vm_id)'"
$service = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_VirtualSystemManagementService
$exchange = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_KvpExchangeComponentSettingData |
    Where-Object { $_.InstanceID -like "Microsoft:$($Parameters.vm_id)\*" } | Select-Object -First 1
$present = @{}
foreach ($item in @($exchange.HostOnlyItems)) {
    if ($item) {
        $properties = @{}
        foreach ($property in ([xml] $item).INSTANCE.PROPERTY) {
            $properties[$property.NAME] = $property.VALUE
        }
        if ($properties['Name'] -like 'leeward.tracking.*') { $present[$properties['Name']] = [string] $properties['Data'] }
    }
}
$class = Get-WmiObject -Namespace root\virtualization\v2 -List -Class Msvm_KvpExchangeDataItem
function ConvertTo-Item($Name, $Value) {
    $item = $class.CreateInstance()
    # 4: kept with the machine on the host, never shown to the guest.
    $item.Source = 4
    $item.Name = $Name
    $item.Data = $Value
    $item.GetText([System.Management.TextFormat]::CimDtd20)
}
function Wait-ForJob($Path, $Method) {
    $job = New-Object -TypeName System.Management.ManagementObject -ArgumentList $Path
    $job.Get()
    while ($job.JobState -eq 3 -or $job.JobState -eq 4) {
        Start-Sleep -Milliseconds 100
        $job.Get()
    }
    if ($job.JobState -ne 7) {
        $failure = New-Object -TypeName System.InvalidOperationException -ArgumentList "$Method ended in state $($job.JobState), error $($job.ErrorCode): $($job.ErrorDescription)"
        $failure.Data['ErrorCode'] = [long] $job.ErrorCode
        throw $failure
    }
}
$given = @($Parameters.items | ForEach-Object { $_.name })
$others = @($present.Keys | Where-Object { $given -notcontains $_ -and $Parameters.replaces -notcontains $_ })
if ($others.Count -gt 0) {
    throw (New-Object -TypeName System.InvalidOperationException -ArgumentList "$($others[0]) was written meanwhile")
}
# The new ones first, under names of their own: at no moment is there neither the old record nor the new one. A name that
# is taken is refused, so of two writers one fails.
$new = @($Parameters.items | Where-Object { $present[$_.name] -cne $_.value })
if ($new.Count -gt 0) {
    $arguments = $service.GetMethodParameters('AddKvpItems')
    $arguments.TargetSystem = $vm.Path.Path
    $arguments.DataItems = [string[]] @($new | ForEach-Object { ConvertTo-Item $_.name $_.value })
    $answer = $service.InvokeMethod('AddKvpItems', $arguments, $null)
    if ($answer.ReturnValue -eq 4096) {
        Wait-ForJob $answer.Job 'AddKvpItems'
    } elseif ($answer.ReturnValue -ne 0) {
        $failure = New-Object -TypeName System.InvalidOperationException -ArgumentList "AddKvpItems returned $($answer.ReturnValue)"
        $failure.Data['ErrorCode'] = [long] $answer.ReturnValue
        throw $failure
    }
}
$old = @($present.Keys | Where-Object { $given -notcontains $_ })
if ($old.Count -gt 0) {
    $arguments = $service.GetMethodParameters('RemoveKvpItems')
    $arguments.TargetSystem = $vm.Path.Path
    $arguments.DataItems = [string[]] @($old | ForEach-Object { ConvertTo-Item $_ '' })
    $answer = $service.InvokeMethod('RemoveKvpItems', $arguments, $null)
    if ($answer.ReturnValue -eq 4096) {
        Wait-ForJob $answer.Job 'RemoveKvpItems'
    } elseif ($answer.ReturnValue -ne 0) {
        $failure = New-Object -TypeName System.InvalidOperationException -ArgumentList "RemoveKvpItems returned $($answer.ReturnValue)"
        $failure.Data['ErrorCode'] = [long] $answer.ReturnValue
        throw $failure
    }
}
@{}
