# Completion of hone, honed and hone-worker in bash. What there is to complete the programs
# say themselves (`hone --complete WORDS...`, base/args.h).
_hone() {
    local words cur answer line i
    read -ra words <<<"${COMP_LINE:0:COMP_POINT}"
    case ${COMP_LINE:0:COMP_POINT} in *[[:space:]]) words+=("") ;; esac
    cur=${words[-1]}
    COMPREPLY=()
    answer=$("$1" --complete "${words[@]:1}" 2>/dev/null)
    while IFS= read -r line; do
        case $line in
        :files)
            compopt -o filenames
            mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$cur")
            ;;
        :folders)
            compopt -o filenames
            mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -d -- "$cur")
            ;;
        ?*) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done <<<"$answer"
    # Readline sees only what stands behind the last colon.
    case $cur in
    *:*)
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]=${COMPREPLY[i]#"${cur%"${cur##*:}"}"}
        done
        ;;
    esac
}
complete -F _hone hone honed hone-worker
