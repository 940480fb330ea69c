#!/bin/sh
# @NAME@ @VERSION@: this script, and after it a zip archive that @PYTHONS@ runs. No other Python package is needed.
# A container runtime starts it from its plugin directory with three variables and nothing else in its environment.
# shellcheck disable=SC2043,SC2046,SC2059,SC2093 # placeholders, numbers to be split, octal escapes, a last resort
PATH=${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
for python in @PYTHONS@; do
    command -v "$python" >/dev/null 2>&1 || continue
    exec "$python" -I -S -X utf8 -c \
        'import sys; sys.path.insert(0, sys.argv.pop(1)); from nri_resctrl_plugin.__main__ import main; sys.exit(main())' \
        "$0" "$@"
done
why="$0 needs one of: @PYTHONS@"
echo "$why" >&2
[ "$NRI_PLUGIN_SOCKET" = 3 ] && command -v od >/dev/null && command -v dd >/dev/null || exit 69
# Without an interpreter there is nothing to do, but a runtime with NRI 0.6 would not start without this plugin. So it
# registers, and answers each call with success, until the runtime closes the connection.
command -v logger >/dev/null && logger -t @NAME@ -p daemon.err "$why; it stays connected and does nothing"
# One byte a read: what reads ahead would take bytes of the next message.
take() { dd bs=1 count="$1" <&3 2>/dev/null; }
numbers() { take "$1" | od -An -v -tu1; }
octal() { printf '\\%03o' "$@"; }
printf '@REGISTRATION@' >&3
left=0
while set -- $(numbers 8) && [ $# = 8 ]; do
    connection=$4 length=$(($5 << 24 | $6 << 16 | $7 << 8 | $8))
    if [ "$connection" != 1 ] || [ "$left" -gt 0 ] || [ "$length" -lt 10 ]; then
        take "$length" >/dev/null
        [ "$connection" != 1 ] || left=$((left - length))
        continue
    fi
    set -- $(numbers 10)
    take $((length - 10)) >/dev/null
    left=$(($1 << 24 | $2 << 16 | $3 << 8 | $4)) left=$((left + 10 - length))
    stream=$(octal "$5" "$6" "$7" "$8")
    case $5$6$7$8 in
        0001) printf "\000\000\000\001\000\000\000@CONFIGURE_FRAME@\000\000\000@CONFIGURE_BODY@$stream\002\000@CONFIGURE@" >&3 ;;
        *) printf "\000\000\000\001\000\000\000\012\000\000\000\000$stream\002\000" >&3 ;;
    esac
done
exit 69
