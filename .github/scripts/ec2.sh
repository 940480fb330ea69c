#!/usr/bin/env bash
# One metal instance for the hardware lane: `ec2.sh start|run|fetch|stop|reap`. State is what the caller passes in,
# and the tags `lane` and `run`: only what bears them is ever ended.
#
# The instance ends itself: it shuts down after $LIFETIME_MINUTES whatever becomes of this workflow, and a
# shutdown terminates it. `reap` terminates what is older than that all the same.
set -euo pipefail

: "${LIFETIME_MINUTES:=120}" # more than the jobs that use it may take together
: "${LANE_TAG:=resctrl-hardware-lane}"

start() { # start SHA RUN -> prints the instance id
  local image user_data
  image=$(aws ssm get-parameter --query Parameter.Value --output text \
    --name /aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id)
  user_data=$(printf '#!/bin/sh\nshutdown -h +%s' "$LIFETIME_MINUTES") # the command line tool encodes it
  aws ec2 run-instances --image-id "$image" --instance-type "$INSTANCE_TYPE" --subnet-id "$SUBNET_ID" \
    --security-group-ids "$SECURITY_GROUP_ID" --associate-public-ip-address --count 1 \
    --instance-initiated-shutdown-behavior terminate --instance-market-options MarketType=spot \
    --metadata-options HttpTokens=required --user-data "$user_data" \
    --block-device-mappings 'DeviceName=/dev/sda1,Ebs={VolumeSize=16,DeleteOnTermination=true}' \
    --tag-specifications "ResourceType=instance,Tags=[{Key=lane,Value=$LANE_TAG},{Key=commit,Value=$1},{Key=run,Value=$2}]" \
    --query 'Instances[0].InstanceId' --output text
}

_address() {
  aws ec2 wait instance-running --instance-ids "$1"
  aws ec2 describe-instances --instance-ids "$1" \
    --query 'Reservations[0].Instances[0].PublicIpAddress' --output text
}

_admit() { # a key of our own is accepted for one minute
  [ -f "$RUNNER_TEMP/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$RUNNER_TEMP/key"
  aws ec2-instance-connect send-ssh-public-key --instance-id "$1" --instance-os-user ubuntu \
    --ssh-public-key "file://$RUNNER_TEMP/key.pub" >/dev/null
}

_options=(-o StrictHostKeyChecking=accept-new -o ConnectTimeout=10 -o ServerAliveInterval=15)

run() { # run INSTANCE COMMAND: as root there, with our input; waits for its sshd, 20 minutes at most (metal is slow)
  local address attempt
  address=$(_address "$1")
  for attempt in $(seq 80); do
    _admit "$1"
    if ssh -n -i "$RUNNER_TEMP/key" "${_options[@]}" "ubuntu@$address" true 2>/dev/null; then
      _admit "$1"
      ssh -i "$RUNNER_TEMP/key" "${_options[@]}" "ubuntu@$address" "sudo bash -euc $(printf %q "$2")"
      return
    fi
    echo "attempt $attempt: $1 does not answer yet" >&2
    sleep 10
  done
  echo "instance $1 never answered" >&2
  return 1
}

fetch() { # fetch INSTANCE PATH TARGET: a directory there, to here
  local address
  address=$(_address "$1")
  _admit "$1"
  ssh -i "$RUNNER_TEMP/key" "${_options[@]}" "ubuntu@$address" "sudo tar -C $(printf %q "$2") -czf - ." >"$3"
}

_terminate() { # terminate BEFORE FILTER...: instances of the lane that were launched before
  local found
  found=$(aws ec2 describe-instances --output text \
    --query "Reservations[].Instances[?LaunchTime<'$1'].InstanceId" --filters "Name=tag:lane,Values=$LANE_TAG" \
    'Name=instance-state-name,Values=pending,running,stopping,stopped' "${@:2}")
  if [ -n "$found" ]; then
    # One word per instance.
    # shellcheck disable=SC2086
    aws ec2 terminate-instances --instance-ids $found >/dev/null
  fi
  echo "terminated: ${found:-none}"
}

stop() { # stop RUN: whatever a workflow run has started, also where it did not come to tell
  _terminate 9999 "Name=tag:run,Values=$1"
}

reap() { # terminate what outlived its time
  _terminate "$(date -u -d "-$LIFETIME_MINUTES minutes" +%Y-%m-%dT%H:%M:%S)"
}

"$@"
