$computer = Get-CimInstance -ClassName Win32_ComputerSystem
$system = Get-CimInstance -ClassName Win32_OperatingSystem
$domain = if ($computer.PartOfDomain) { $computer.Domain } else { '' }
$login = [System.Security.Principal.WindowsPrincipal] [System.Security.Principal.WindowsIdentity]::GetCurrent()
# Administrators and Hyper-V Administrators, by the identifiers that are the same in every language.
$administrator = $login.IsInRole([System.Security.Principal.SecurityIdentifier] 'S-1-5-32-544') -or $login.IsInRole([System.Security.Principal.SecurityIdentifier] 'S-1-5-32-578')
$module = Get-Module -ListAvailable -Name Hyper-V | Sort-Object -Property Version -Descending | Select-Object -First 1
$cluster = ''
$broker = ''
$online = $true
$volumes = @(Get-CimInstance -ClassName Win32_Volume -Filter 'DriveType = 3' | Where-Object { $_.Name -notlike '\\?\*' } | ForEach-Object {
    @{ path = $_.Name; free = [long] $_.FreeSpace; size = [long] $_.Capacity }
})
$service = Get-Service -Name ClusSvc -ErrorAction SilentlyContinue
if ($administrator -and $null -ne $service -and $service.Status -eq 'Running') {
    $cluster = (Get-Cluster).Name
    $resources = @(Get-ClusterResource)
    $role = $resources | Where-Object { "$($_.ResourceType)" -eq 'Virtual Machine Replication Broker' } | Select-Object -First 1
    if ($null -ne $role) {
        $name = $resources | Where-Object { "$($_.ResourceType)" -eq 'Network Name' -and "$($_.OwnerGroup)" -eq "$($role.OwnerGroup)" } | Select-Object -First 1
        $online = "$($role.State)" -eq 'Online'
        $broker = (Get-ClusterParameter -InputObject $name -Name DnsName).Value
        if ($domain) { $broker = "$broker.$domain" }
    }
    foreach ($shared in @(Get-ClusterSharedVolume)) {
        foreach ($volume in @($shared.SharedVolumeInfo)) {
            $volumes += @{ path = $volume.FriendlyVolumeName; free = [long] $volume.Partition.FreeSpace; size = [long] $volume.Partition.Size }
        }
    }
}
$replicaServer = $null
$storage = ''
$switches = @()
$firewall = $false
if ($administrator -and $null -ne $module) {
    $server = Get-VMReplicationServer
    $replicaServer = @{
        enabled                = $server.ReplicationEnabled
        kerberos_port          = $server.KerberosAuthenticationPort
        certificate_port       = $server.CertificateAuthenticationPort
        authentication         = [string] $server.AllowedAuthenticationType
        certificate_thumbprint = [string] $server.CertificateThumbprint
        from_any_server        = $server.ReplicationAllowedFromAnyServer
        storage                = [string] $server.DefaultStorageLocation
        authorizations         = @(Get-VMReplicationAuthorizationEntry | ForEach-Object {
            @{ server = $_.AllowedPrimaryServer; storage = [string] $_.ReplicaStorageLocation }
        })
    }
    $storage = (Get-VMHost).VirtualHardDiskPath
    $switches = @(Get-VMSwitch | ForEach-Object { @{ name = $_.Name; kind = [string] $_.SwitchType } })
    $rules = 'VIRT-HVRHTTPL-In-TCP-NoScope', 'VIRT-HVRHTTPSL-In-TCP-NoScope'
    $found = Get-NetFirewallRule -Name $rules -ErrorAction SilentlyContinue
    $firewall = @($found | Where-Object { "$($_.Enabled)" -eq 'True' }).Count -gt 0
}
$certificates = @(Get-ChildItem -Path Cert:\LocalMachine\My | Where-Object { $_.HasPrivateKey } | ForEach-Object {
    @{
        thumbprint = $_.Thumbprint
        subject    = $_.Subject
        not_after  = $_.NotAfter.ToUniversalTime().ToString('o')
        dns_names  = @($_.DnsNameList | Where-Object { $_ } | ForEach-Object { [string] $_.Punycode })
        usages     = @($_.EnhancedKeyUsageList | Where-Object { $_ } | ForEach-Object { [string] $_.ObjectId })
    }
})
@{
    computer_name         = $computer.DNSHostName
    fully_qualified_name  = if ($domain) { "$($computer.DNSHostName).$domain" } else { $computer.DNSHostName }
    time                  = [System.DateTime]::UtcNow.ToString('o')
    os_version            = $system.Version
    powershell_version    = $PSVersionTable.PSVersion.ToString()
    hyperv_module_version = if ($null -ne $module) { $module.Version.ToString() } else { '' }
    administrator         = $administrator
    cluster               = $cluster
    replica_broker        = $broker
    broker_online         = $online
    replica_server        = $replicaServer
    replica_firewall_open = $firewall
    virtual_disk_path     = $storage
    volumes               = $volumes
    switches              = $switches
    certificates          = $certificates
}
