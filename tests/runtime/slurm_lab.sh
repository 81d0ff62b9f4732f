#!/usr/bin/env bash
# Starts a Slurm cluster of two nodes on this machine (Debian's packages, as root): slurm_lab.sh FOLDER
set -e
D=$1; H=$(hostname -s)
mkdir -p "$D"/ctld "$D"/log "$D"/n1 "$D"/n2 /run/munge /var/log/munge /var/lib/munge /etc/munge
[ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 2>/dev/null
chown -R munge:munge /etc/munge /run/munge /var/log/munge /var/lib/munge
chmod 400 /etc/munge/munge.key; chmod 755 /run/munge
cat > "$D"/slurm.conf <<C
ClusterName=lab
SlurmctldHost=$H(127.0.0.1)
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$D/ctld
SlurmdSpoolDir=$D/%n
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd-%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=2,sched_interval=2
ReturnToService=2
MpiDefault=none
SlurmdTimeout=10
MinJobAge=3600
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname=$H NodeAddr=127.0.0.1 Port=17001 CPUs=2 RealMemory=4000
NodeName=n2 NodeHostname=$H NodeAddr=127.0.0.1 Port=17002 CPUs=2 RealMemory=4000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=4 PreemptMode=REQUEUE
PartitionName=high Nodes=n1 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
C
export SLURM_CONF=$D/slurm.conf
pgrep munged >/dev/null || runuser -u munge -- /usr/sbin/munged --pid-file=/run/munge/munged.pid
sleep 0.5
slurmctld
sleep 1
slurmd -N n1
slurmd -N n2
for _ in $(seq 40); do
  [ "$(sinfo -h -N -p debug -o %T | sort -u)" = idle ] && exit 0
  sleep 0.5
done
sinfo
exit 1
