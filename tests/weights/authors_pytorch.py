"""The networks of DeblurGAN as its authors build them in PyTorch; each function is given the module `torch`."""


def resnet_generator(torch, ngf, n_blocks, dropout=True, norm="instance", seed=0):
    """The generator as its authors build it, with `--learn_residual`, and with random weights."""
    nn = torch.nn
    torch.manual_seed(seed)

    def normalized(convolution):
        width = convolution.out_channels
        return [convolution, nn.BatchNorm2d(width) if norm == "batch" else nn.InstanceNorm2d(width)]

    def convolution(kind, *arguments, **options):
        return normalized(kind(*arguments, bias=norm == "instance", **options))

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            inside = [nn.ReflectionPad2d(1), *convolution(nn.Conv2d, width, width, 3), nn.ReLU()]
            inside += [nn.Dropout(0.5)] if dropout else []
            self.conv_block = nn.Sequential(*inside, nn.ReflectionPad2d(1), *convolution(nn.Conv2d, width, width, 3))

        def forward(self, x):
            return x + self.conv_block(x)

    class ResnetGenerator(nn.Module):
        def __init__(self):
            super().__init__()
            steps = [nn.ReflectionPad2d(3), *convolution(nn.Conv2d, 3, ngf, 7), nn.ReLU()]
            for width in (ngf, 2 * ngf):
                steps += [*convolution(nn.Conv2d, width, 2 * width, 3, stride=2, padding=1), nn.ReLU()]
            steps += [Block(4 * ngf) for _ in range(n_blocks)]
            for width in (2 * ngf, ngf):
                up = convolution(nn.ConvTranspose2d, 2 * width, width, 3, stride=2, padding=1, output_padding=1)
                steps += [*up, nn.ReLU()]
            self.model = nn.Sequential(*steps, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh())

        def forward(self, x):
            return torch.clamp(self.model(x) + x, -1, 1)

    return ResnetGenerator().eval()


def patch_critic(torch, ndf, seed=0):
    """The critic as the authors build it: `NLayerDiscriminator` without a sigmoid."""
    nn = torch.nn
    torch.manual_seed(seed)

    class NLayerDiscriminator(nn.Module):
        def __init__(self):
            super().__init__()
            steps = [nn.Conv2d(3, ndf, 4, stride=2, padding=2), nn.LeakyReLU(0.2)]
            for width, stride in ((ndf, 2), (2 * ndf, 2), (4 * ndf, 1)):
                steps += [nn.Conv2d(width, 2 * width, 4, stride=stride, padding=2), nn.InstanceNorm2d(2 * width)]
                steps += [nn.LeakyReLU(0.2)]
            self.model = nn.Sequential(*steps, nn.Conv2d(8 * ndf, 1, 4, padding=2))

        def forward(self, x):
            return self.model(x)

    return NLayerDiscriminator().eval()
