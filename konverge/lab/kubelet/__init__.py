"""The lab's kubelet: turns the pods bound to its nodes into processes of this machine."""
