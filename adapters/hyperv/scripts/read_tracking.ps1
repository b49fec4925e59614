$vm = Get-VM -Id $Parameters.vm_id
function Get-Controller($Drive) {
    "$($Drive.ControllerType) $($Drive.ControllerNumber):$($Drive.ControllerLocation)"
}
$disks = @(Get-VMHardDiskDrive -VM $vm | ForEach-Object {
    $found = @{
        controller   = Get-Controller $_
        instance_id  = [string] $_.Id
        path         = [string] $_.Path
        pass_through = $null -ne $_.DiskNumber
    }
    if (-not $found.pass_through) {
        $file = Get-VHD -Path $_.Path
        $found.size = [long] $file.Size
        $found.file_size = [long] $file.FileSize
        $found.parent_path = [string] $file.ParentPath
        while ($file.ParentPath) { $file = Get-VHD -Path $file.ParentPath }
        $found.base_path = [string] $file.Path
    }
    $found
})
$checkpoints = @(Get-VMSnapshot -VM $vm -SnapshotType Recovery | ForEach-Object {
    $drives = @(Get-VMHardDiskDrive -VMSnapshot $_ | Where-Object { $null -eq $_.DiskNumber })
    @{ name = $_.Name; disks = @($drives | ForEach-Object { @{ controller = Get-Controller $_; path = $_.Path } }) }
})
$points = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_VirtualSystemReferencePoint |
    Where-Object { $_.VirtualSystemIdentifier -eq $Parameters.vm_id -and $_.ReferencePointType -eq 2 }
$reference_points = @($points | Where-Object { $_ } | ForEach-Object {
    $tracked = @{}
    for ($index = 0; $index -lt $_.VirtualDiskIdentifiers.Count; $index++) {
        $tracked[$_.VirtualDiskIdentifiers[$index]] = $_.ResilientChangeTrackingIdentifiers[$index]
    }
    @{ id = $_.InstanceID; application_consistent = $_.ConsistencyLevel -eq 1; disks = $tracked }
})
$exchange = Get-WmiObject -Namespace root\virtualization\v2 -Class Msvm_KvpExchangeComponentSettingData |
    Where-Object { $_.InstanceID -like "Microsoft:$($Parameters.vm_id)\*" } | Select-Object -First 1
$items = @(foreach ($item in @($exchange.HostOnlyItems)) {
    if ($item) {
        $properties = @{}
        foreach ($property in ([xml] $item).INSTANCE.PROPERTY) {
            $properties[$property.NAME] = $property.VALUE
        }
        if ($properties['Name'] -like 'leeward.tracking.*') {
            @{ name = $properties['Name']; value = [string] $properties['Data'] }
        }
    }
})
@{ disks = $disks; checkpoints = $checkpoints; reference_points = $reference_points; items = $items }
