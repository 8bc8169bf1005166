#compdef twwatch
# Completion of twwatch for zsh. The program itself tells what may come next.
local current=$words[CURRENT]
local -a asked matches
asked=("${(@)words[2,CURRENT-1]}")
if [[ $current == --*=* ]]; then
	compset -P '*='
	asked+=("${current%%=*}" "${current#*=}")
else
	asked+=("$current")
fi
matches=("${(@f)$($words[1] --completion-bash "${(@)asked}" 2>/dev/null)}")
compadd -- "${(@)matches:#}" || _files
