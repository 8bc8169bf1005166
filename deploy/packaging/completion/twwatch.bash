# Completion of twwatch for bash. The program itself tells what may come next.
_twwatch() {
	local current=${COMP_WORDS[COMP_CWORD]} word words=()
	# bash takes --flag=value for three words; the program is asked as if for
	# two.
	for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
		[[ $word == = ]] || words+=("$word")
	done
	if [[ $current == = ]]; then
		current=
		words+=("")
	fi
	mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" --completion-bash "${words[@]}" 2>/dev/null)" -- "$current")
}
complete -F _twwatch -o bashdefault -o default twwatch
