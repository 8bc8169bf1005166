# Completion of twwatch for fish. The program itself tells what may come next.
function __twwatch_next
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    if string match -q -- '--*=*' $current
        set -l flag (string split -m 1 = -- $current)
        $before[1] --completion-bash $before[2..] $flag 2>/dev/null | string replace -r -- '^' "$flag[1]="
    else
        $before[1] --completion-bash $before[2..] "$current" 2>/dev/null
    end
end
complete -c twwatch -n 'test (count (commandline -opc)) -eq 1' -f
complete -c twwatch -a '(__twwatch_next)'
