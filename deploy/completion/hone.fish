# Completion of hone, honed and hone-worker in fish. What there is to complete the programs
# say themselves (`hone --complete WORDS...`, base/args.h).
function __hone_complete
    set -l words (commandline -opc)
    set -l last (commandline -ct)
    for line in ($words[1] --complete $words[2..-1] "$last" 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path "$last"
            case ':folders'
                __fish_complete_directories "$last"
            case '*'
                echo $line
        end
    end
end
for program in hone honed hone-worker
    complete -c $program -f -a '(__hone_complete)'
end
